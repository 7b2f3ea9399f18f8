"""The hot files compiled by Cython from the very sources that the interpreter runs: a faster node, no second text.

`modules` names the hot files, and says where the compiled form of a source text lies.
`natives` draws from their texts what Cython is told beside them.
`finder` lets `respkv server` load what is compiled.
`builder` compiles.
"""
