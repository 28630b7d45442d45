"""How fast, against etcd in the same run."""
