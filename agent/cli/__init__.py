"""The `rollway` command: one file per verb, each of which parses words, asks the client, and shows the answer."""
