"""Joins a teacher and a student: their taps, and the terms of a method."""
