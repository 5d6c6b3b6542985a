"""The shell around Faust: the only package that imports it, and it holds no business rule."""
