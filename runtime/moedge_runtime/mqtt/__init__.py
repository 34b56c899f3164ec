"""MQTT: the topic tree, the payloads, the client and the broker that can be started beside it. See docs/mqtt.md."""
