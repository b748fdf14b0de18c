"""Measures the structure of a Python package, so that ours can be compared with the models of the field.

`source` reads modules, `structure`, `words` and `synonyms` count in them, `trace` follows one operation, `operations` says which,
`anchors` installs the models, `report` holds the bars and the table. The command is `tools/measure_house.py`.
"""
