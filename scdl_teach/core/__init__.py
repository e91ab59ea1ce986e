"""The contract and the one training loop: what every system of the package is built on."""
