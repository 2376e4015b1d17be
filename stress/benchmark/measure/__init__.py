"""The measurements themselves, alike for every transport."""
