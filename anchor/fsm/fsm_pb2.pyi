from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batch(_message.Message):
    __slots__ = ("commands", "origin", "number", "clock_ms")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[Command]
    origin: int
    number: int
    clock_ms: int
    def __init__(self, commands: _Optional[_Iterable[_Union[Command, _Mapping]]] = ..., origin: _Optional[int] = ..., number: _Optional[int] = ..., clock_ms: _Optional[int] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("put", "delete", "open_session", "keep_alive", "close_session", "condition", "in_session", "by_key")
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    OPEN_SESSION_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_SESSION_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    IN_SESSION_FIELD_NUMBER: _ClassVar[int]
    BY_KEY_FIELD_NUMBER: _ClassVar[int]
    put: Put
    delete: Delete
    open_session: OpenSession
    keep_alive: KeepAlive
    close_session: CloseSession
    condition: Condition
    in_session: bytes
    by_key: ByKey
    def __init__(self, put: _Optional[_Union[Put, _Mapping]] = ..., delete: _Optional[_Union[Delete, _Mapping]] = ..., open_session: _Optional[_Union[OpenSession, _Mapping]] = ..., keep_alive: _Optional[_Union[KeepAlive, _Mapping]] = ..., close_session: _Optional[_Union[CloseSession, _Mapping]] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ..., in_session: _Optional[bytes] = ..., by_key: _Optional[_Union[ByKey, _Mapping]] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class Delete(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    def __init__(self, key: _Optional[bytes] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("ttl_ms", "token", "max_sessions")
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    ttl_ms: int
    token: int
    max_sessions: int
    def __init__(self, ttl_ms: _Optional[int] = ..., token: _Optional[int] = ..., max_sessions: _Optional[int] = ...) -> None: ...

class KeepAlive(_message.Message):
    __slots__ = ("session", "token")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    session: int
    token: int
    def __init__(self, session: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class CloseSession(_message.Message):
    __slots__ = ("session", "token")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    session: int
    token: int
    def __init__(self, session: _Optional[int] = ..., token: _Optional[int] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("mod_indexes", "absent", "present")
    MOD_INDEXES_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    mod_indexes: _containers.RepeatedScalarFieldContainer[int]
    absent: bool
    present: bool
    def __init__(self, mod_indexes: _Optional[_Iterable[int]] = ..., absent: _Optional[bool] = ..., present: _Optional[bool] = ...) -> None: ...

class ByKey(_message.Message):
    __slots__ = ("digest", "fingerprint")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    fingerprint: int
    def __init__(self, digest: _Optional[bytes] = ..., fingerprint: _Optional[int] = ...) -> None: ...
