"""The server: knows the hosts, walks them through rollouts, keeps builds, releases and config, serves the API."""
