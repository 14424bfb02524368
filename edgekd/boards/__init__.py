"""Boards that are no hardware: a Debian system for 64-bit ARM, made here and emulated by QEMU."""
