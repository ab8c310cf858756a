"""What is measured on a GPU: fmjax beside the best of PyTorch, row after row within a budget of seconds.

python -m benchmarks.gpu --seconds 330 --out FILE.json
"""
