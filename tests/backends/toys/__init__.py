"""Toy pool types on which the contract itself is tested."""
