"""The agent: one host's process, which makes true what is assigned to it and tells what is."""
