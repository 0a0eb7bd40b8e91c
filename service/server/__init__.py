"""What stands between the network and the application: connections, bodies, places, and the way to Flask."""
