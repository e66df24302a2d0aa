"""Tests of the checker: small packages that are good, and for each rule one that is broken."""
