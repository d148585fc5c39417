"""The library against a real server: llama.cpp's, with a tiny model, on the loopback interface."""
