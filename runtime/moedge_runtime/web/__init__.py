"""The daemon's side of HTTP: a small server, the monitoring endpoints and the local page. It knows no other package."""
