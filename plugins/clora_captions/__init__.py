"""Writers of captions: a local vision-language model, or an endpoint."""
