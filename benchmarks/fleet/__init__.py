"""Fleet files of 5,000 devices, and hundreds of simulated devices on one mosquitto. See README.md."""
