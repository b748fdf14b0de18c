"""The exchange: messages in, messages out, and what is known of peers. Pure: time and chance are arguments."""
