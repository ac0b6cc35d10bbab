"""The CUDA side of minidl: thin launchers for the sources in kernels/.

So far it only finds those sources (launch.py), and importing it loads no GPU library.
"""
