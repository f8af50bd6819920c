"""How scripts are run in several processes."""

# Every process has a copy of the model (DDP), or a part of it (FSDP).
DIVISIONS = {
    "ddp": (),
    "fsdp": ("--fsdp", "full_shard", "--fsdp_config",
             '{"fsdp_version": 2, "transformer_layer_cls_to_wrap": ["BertLayer"]}'),
}  # fmt: skip
