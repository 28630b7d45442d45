from anchor.transport import raft_pb2 as _raft_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ForwardRequest(_message.Message):
    __slots__ = ("header", "number", "proposal", "read_index")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    header: _raft_pb2.Header
    number: int
    proposal: Proposal
    read_index: ReadIndex
    def __init__(self, header: _Optional[_Union[_raft_pb2.Header, _Mapping]] = ..., number: _Optional[int] = ..., proposal: _Optional[_Union[Proposal, _Mapping]] = ..., read_index: _Optional[_Union[ReadIndex, _Mapping]] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, batches: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReadIndex(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: bool
    def __init__(self, lease: _Optional[bool] = ...) -> None: ...

class ForwardResponse(_message.Message):
    __slots__ = ("header", "number", "error_code", "leader_id", "term", "read_index")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    header: _raft_pb2.Header
    number: int
    error_code: str
    leader_id: str
    term: int
    read_index: int
    def __init__(self, header: _Optional[_Union[_raft_pb2.Header, _Mapping]] = ..., number: _Optional[int] = ..., error_code: _Optional[str] = ..., leader_id: _Optional[str] = ..., term: _Optional[int] = ..., read_index: _Optional[int] = ...) -> None: ...
