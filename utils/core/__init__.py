"""Nothing about models or languages: errors, arguments, atomic files, run records, tables of text, caches, the style of figures."""
