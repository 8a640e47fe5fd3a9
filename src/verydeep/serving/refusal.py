"""What a client is told when its request is not carried out."""


class RefusedError(Exception):
    """A request that ends with this HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
