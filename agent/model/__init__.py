"""DESIGN's words as frozen structs: what every room may know, without behaviour beyond checking themselves."""
