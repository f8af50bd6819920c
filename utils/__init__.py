"""What the scripts share: each module is named after what it holds."""
