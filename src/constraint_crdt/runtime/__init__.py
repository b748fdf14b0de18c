"""The running node: parts, composition and public operations. Start reading at `lifecycle`, which puts the parts together."""
