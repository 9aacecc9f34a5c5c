"""A Ray cluster whose nodes are processes of this machine: `python local_cluster.py CPUS...`, a node each.

It lies in `RAY_TMPDIR`. Prints the address, then does what lines on stdin say, and says "done": `add CPUS`,
`kill NODE`. Ends with stdin.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

cpus = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(cpus[0])})
nodes = [cluster.head_node, *(cluster.add_node(num_cpus=int(count)) for count in cpus[1:])]
print("address", cluster.address, flush=True)  # Ray prints lines of its own, too
for line in sys.stdin:
    command, argument = line.split()
    if command == "add":
        nodes.append(cluster.add_node(num_cpus=int(argument)))
    else:
        cluster.remove_node(nodes[int(argument)], allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
