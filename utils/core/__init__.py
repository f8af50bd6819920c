"""Nothing about models or languages: errors, arguments, atomic files, run records, tables, caches, the style of figures."""
