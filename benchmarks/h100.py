"""H100s that are not here, to compile for. Import it before jax.

Needs jax-cuda13-plugin and jax-cuda13-pjrt of jax's own version, and none of NVIDIA's libraries. What is compiled is
the program of a real device, but for autotuning: the work space of cuDNN and cuBLAS is in no figure, and nothing is
timed.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
# kernels are not chosen by trying them, and untried tiles of Triton's products do not fit
os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
# what is looked at are kernels, not their machine code, whose optimisation takes longer than all else
os.environ["XLA_FLAGS"] += " --xla_gpu_disable_gpuasm_optimizations=true"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

GIB = 2**30
MEMORY = 84_942_979_072  # bytes of an "NVIDIA H100 80GB HBM3"
# the device as XLA describes it (xla/tools/hlo_opt/gpu_specs/h100_sxm.txtpb), in the fields that jax's parser knows
TARGET = f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: {MEMORY} pcie_bandwidth: 34359738368 ecc_enabled: true
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  device_vendor: "NVIDIA Corporation" name: "NVIDIA H100 80GB HBM3" device_address_bits: 64
  platform_version: "Compute Capability 9.0a" driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.12.0"
}}
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }} runtime_version {{ major: 13 minor: 0 patch: 0 }}
"""


def devices(count: int) -> list[Any]:
    """So many H100s, to make a mesh of."""
    from jax.experimental import topologies

    # slices x hosts x devices of a host: how they are grouped changes no collective of a program
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=TARGET, topology=f"1x1x{count}"
    )
    return topology.devices
