"""Endings of the names of media files; needs no package that opens them."""

_MEDIA = (
    "3g2 3gp amv asf avi divx dv f4v flv m2t m2ts m2v m4v mj2 mkv mod mov mp4 mpe mpeg mpg mts mxf "
    "nut ogm ogv ogx qt rm rmvb tod ts vob webm wmv"
)
_AUDIO = (
    "aac ac3 aif aifc aiff amr au caf eac3 flac m4a m4b mka mp2 mp3 oga ogg opus rf64 snd sph w64 "
    "wav wave weba wma wv"
)
# In lower case: of files that may hold pictures, and of files of sound alone.
MEDIA_ENDINGS = frozenset(f".{name}" for name in _MEDIA.split())
AUDIO_ENDINGS = frozenset(f".{name}" for name in _AUDIO.split())
