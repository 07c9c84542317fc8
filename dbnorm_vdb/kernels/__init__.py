"""Log partitions, nearest items and Sinkhorn weights in blocks, on the backend that suits the work."""

from dbnorm_vdb.kernels.backends import BACKENDS, PRECISIONS, make_kernel
from dbnorm_vdb.kernels.base import BankKernel
from dbnorm_vdb.kernels.nearest import NearestItems
from dbnorm_vdb.kernels.partition import log_partition
from dbnorm_vdb.kernels.sinkhorn import SinkhornWeights, learn_weights

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "BankKernel",
    "NearestItems",
    "SinkhornWeights",
    "learn_weights",
    "log_partition",
    "make_kernel",
]
