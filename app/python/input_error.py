"""What may go wrong for a reason that the user can mend."""


class InputError(Exception):
    """Wrong input; the message names file and place."""


class TemplateRefused(InputError):
    """The chat template ended with an error on a conversation."""
