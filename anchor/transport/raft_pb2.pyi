from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Header(_message.Message):
    __slots__ = ("protocol_version", "cluster_id", "sender", "recipient", "sender_incarnation", "recipient_incarnation")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    SENDER_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cluster_id: str
    sender: str
    recipient: str
    sender_incarnation: int
    recipient_incarnation: int
    def __init__(self, protocol_version: _Optional[int] = ..., cluster_id: _Optional[str] = ..., sender: _Optional[str] = ..., recipient: _Optional[str] = ..., sender_incarnation: _Optional[int] = ..., recipient_incarnation: _Optional[int] = ...) -> None: ...

class RequestVoteRequest(_message.Message):
    __slots__ = ("header", "term", "last_log_index", "last_log_term", "pre_vote", "leadership_transfer")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    LEADERSHIP_TRANSFER_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    last_log_index: int
    last_log_term: int
    pre_vote: bool
    leadership_transfer: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ..., last_log_index: _Optional[int] = ..., last_log_term: _Optional[int] = ..., pre_vote: _Optional[bool] = ..., leadership_transfer: _Optional[bool] = ...) -> None: ...

class RequestVoteResponse(_message.Message):
    __slots__ = ("header", "term", "vote_granted", "pre_vote")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    VOTE_GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    vote_granted: bool
    pre_vote: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ..., vote_granted: _Optional[bool] = ..., pre_vote: _Optional[bool] = ...) -> None: ...

class AppendEntriesRequest(_message.Message):
    __slots__ = ("header", "term", "prev_log_index", "prev_log_term", "entries", "commit_index", "read_round", "session")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_LOG_TERM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    READ_ROUND_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    prev_log_index: int
    prev_log_term: int
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    commit_index: int
    read_round: int
    session: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ..., prev_log_index: _Optional[int] = ..., prev_log_term: _Optional[int] = ..., entries: _Optional[_Iterable[bytes]] = ..., commit_index: _Optional[int] = ..., read_round: _Optional[int] = ..., session: _Optional[int] = ...) -> None: ...

class AppendEntriesResponse(_message.Message):
    __slots__ = ("header", "term", "success", "match_index", "rejected_index", "conflict_index", "conflict_term", "read_round", "session", "no_room")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    REJECTED_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_TERM_FIELD_NUMBER: _ClassVar[int]
    READ_ROUND_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NO_ROOM_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    success: bool
    match_index: int
    rejected_index: int
    conflict_index: int
    conflict_term: int
    read_round: int
    session: int
    no_room: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ..., success: _Optional[bool] = ..., match_index: _Optional[int] = ..., rejected_index: _Optional[int] = ..., conflict_index: _Optional[int] = ..., conflict_term: _Optional[int] = ..., read_round: _Optional[int] = ..., session: _Optional[int] = ..., no_room: _Optional[bool] = ...) -> None: ...

class InstallSnapshotRequest(_message.Message):
    __slots__ = ("header", "term", "session", "manifest", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    session: int
    manifest: SnapshotManifest
    chunk: SnapshotChunk
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ..., session: _Optional[int] = ..., manifest: _Optional[_Union[SnapshotManifest, _Mapping]] = ..., chunk: _Optional[_Union[SnapshotChunk, _Mapping]] = ...) -> None: ...

class SnapshotManifest(_message.Message):
    __slots__ = ("format_version", "last_included_index", "last_included_term", "configuration", "configuration_index", "files")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_INCLUDED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INCLUDED_TERM_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    last_included_index: int
    last_included_term: int
    configuration: bytes
    configuration_index: int
    files: _containers.RepeatedCompositeFieldContainer[SnapshotFile]
    def __init__(self, format_version: _Optional[int] = ..., last_included_index: _Optional[int] = ..., last_included_term: _Optional[int] = ..., configuration: _Optional[bytes] = ..., configuration_index: _Optional[int] = ..., files: _Optional[_Iterable[_Union[SnapshotFile, _Mapping]]] = ...) -> None: ...

class SnapshotFile(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("file", "offset", "content")
    FILE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    file: int
    offset: int
    content: bytes
    def __init__(self, file: _Optional[int] = ..., offset: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class InstallSnapshotResponse(_message.Message):
    __slots__ = ("header", "term", "session", "success", "match_index", "incomplete", "resume_file", "resume_offset")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    INCOMPLETE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FILE_FIELD_NUMBER: _ClassVar[int]
    RESUME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    session: int
    success: bool
    match_index: int
    incomplete: bool
    resume_file: int
    resume_offset: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ..., session: _Optional[int] = ..., success: _Optional[bool] = ..., match_index: _Optional[int] = ..., incomplete: _Optional[bool] = ..., resume_file: _Optional[int] = ..., resume_offset: _Optional[int] = ...) -> None: ...

class TimeoutNowRequest(_message.Message):
    __slots__ = ("header", "term")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    header: Header
    term: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., term: _Optional[int] = ...) -> None: ...

class TimeoutNowResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("header", "id", "address", "http_address", "incarnation", "voter", "forwarded", "replace", "order")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    header: Header
    id: str
    address: str
    http_address: str
    incarnation: int
    voter: bool
    forwarded: bool
    replace: bool
    order: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., id: _Optional[str] = ..., address: _Optional[str] = ..., http_address: _Optional[str] = ..., incarnation: _Optional[int] = ..., voter: _Optional[bool] = ..., forwarded: _Optional[bool] = ..., replace: _Optional[bool] = ..., order: _Optional[bytes] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("error_code", "error_detail", "cluster_id", "leader_id", "leader_address", "promoted")
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_DETAIL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    error_code: str
    error_detail: str
    cluster_id: str
    leader_id: str
    leader_address: str
    promoted: bool
    def __init__(self, error_code: _Optional[str] = ..., error_detail: _Optional[str] = ..., cluster_id: _Optional[str] = ..., leader_id: _Optional[str] = ..., leader_address: _Optional[str] = ..., promoted: _Optional[bool] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("header", "id", "forwarded")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    id: str
    forwarded: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., id: _Optional[str] = ..., forwarded: _Optional[bool] = ...) -> None: ...

class RemoveResponse(_message.Message):
    __slots__ = ("error_code", "error_detail")
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_DETAIL_FIELD_NUMBER: _ClassVar[int]
    error_code: str
    error_detail: str
    def __init__(self, error_code: _Optional[str] = ..., error_detail: _Optional[str] = ...) -> None: ...

class IdentifyRequest(_message.Message):
    __slots__ = ("protocol_version", "cluster_id", "sender", "sender_incarnation")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    SENDER_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cluster_id: str
    sender: str
    sender_incarnation: int
    def __init__(self, protocol_version: _Optional[int] = ..., cluster_id: _Optional[str] = ..., sender: _Optional[str] = ..., sender_incarnation: _Optional[int] = ...) -> None: ...

class IdentifyResponse(_message.Message):
    __slots__ = ("protocol_version", "id", "incarnation", "cluster_id", "address", "http_address", "version", "configuration", "configuration_index", "configuration_committed", "founders", "oldest_protocol", "newest_protocol")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    FOUNDERS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NEWEST_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    id: str
    incarnation: int
    cluster_id: str
    address: str
    http_address: str
    version: str
    configuration: bytes
    configuration_index: int
    configuration_committed: bool
    founders: _containers.RepeatedScalarFieldContainer[str]
    oldest_protocol: int
    newest_protocol: int
    def __init__(self, protocol_version: _Optional[int] = ..., id: _Optional[str] = ..., incarnation: _Optional[int] = ..., cluster_id: _Optional[str] = ..., address: _Optional[str] = ..., http_address: _Optional[str] = ..., version: _Optional[str] = ..., configuration: _Optional[bytes] = ..., configuration_index: _Optional[int] = ..., configuration_committed: _Optional[bool] = ..., founders: _Optional[_Iterable[str]] = ..., oldest_protocol: _Optional[int] = ..., newest_protocol: _Optional[int] = ...) -> None: ...

class CompareDigestRequest(_message.Message):
    __slots__ = ("header", "applied_index", "majority_digest")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    MAJORITY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    header: Header
    applied_index: int
    majority_digest: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., applied_index: _Optional[int] = ..., majority_digest: _Optional[bytes] = ...) -> None: ...

class CompareDigestResponse(_message.Message):
    __slots__ = ("header", "known", "digest")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    header: Header
    known: bool
    digest: bytes
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., known: _Optional[bool] = ..., digest: _Optional[bytes] = ...) -> None: ...
