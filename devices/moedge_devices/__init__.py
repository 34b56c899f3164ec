"""Board profiles, fleet files, planning and updates."""
