"""A second, independent implementation of the .qn language in Python and numpy: lexer, parser, checks and fp64 evaluation, with a
generator of random programs and data. It shares no code with the C++ front end; the two are compared program by program."""
