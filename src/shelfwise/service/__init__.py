"""The service: answers over HTTP, and the desk where people review them."""
