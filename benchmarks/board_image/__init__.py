"""`make test-image`: an image in the emulator, from its first boot to power cuts in its updates."""
