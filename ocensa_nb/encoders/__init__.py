"""Pretrained encoders and their tokenizers: found, checked, loaded; texts as token ids."""
