"""Speed, as ratios against a baseline measured in the same run; never part of the tests."""
