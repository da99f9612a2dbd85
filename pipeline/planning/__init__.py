"""How many workers, partitions and bytes a load needs: a simulation of the service over this machine's figures."""
