"""What the tests stand on: the server as a process, a REST client, a simulated agent, real workers."""
