"""Text of settings files -> structs of the model. Every loader raises `SettingsError` and nothing else.

A key is accepted only when this version obeys it; one that is planned is refused as such, any other as unknown: nothing
is silently ignored. The first error is told, always the same one: syntax, then keys in the file's order, then values in
the loader's order, then what is wrong only in combination. Reading files is the caller's.
"""
