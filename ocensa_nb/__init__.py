"""OCENSA notebook suite: failure mode, failure cause and priority from Spanish maintenance notices.

Importing the package loads nothing heavy; each module loads torch, transformers or matplotlib when it needs it. The
data flows one way: `notices.read` → `notices.prepare` → `tokens.encode` → `train.fit` → `evaluate`, `predict`, `plots`.
"""

__version__ = "0.1.0"
