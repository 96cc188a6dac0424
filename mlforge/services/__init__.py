"""Services: named lists of columns, with what joins them to a request and what is computed of both."""
