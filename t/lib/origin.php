<?php

/* The FastCGI origin of downloads: the file that the path names, as the query
   asks for: length (the true Content-Length, or length=n), h_NAME=value (a field
   of the head), status=n, rate=n bytes a second, cut=n: the end after so many
   bytes, with kill by the death of the process. */

$path = $_SERVER['DOCUMENT_ROOT'] . '/' . basename($_SERVER['DOCUMENT_URI']);
$size = filesize($path);
$cut = isset($_GET['cut']) ? (int) $_GET['cut'] : $size;
$rate = (int) ($_GET['rate'] ?? 0);

http_response_code((int) ($_GET['status'] ?? 200));
header('Content-Type: application/x-php');
if (isset($_GET['length'])) {
    header('Content-Length: ' . ($_GET['length'] === '' ? $size : $_GET['length']));
}
foreach ($_GET as $name => $value) {
    if (str_starts_with($name, 'h_')) {
        header(strtr(substr($name, 2), '_', '-') . ': ' . $value);
    }
}

$file = fopen($path, 'rb');
$start = microtime(true);
$sent = 0;
while ($sent < $cut && !feof($file)) {
    $bytes = fread($file, min(65536, $cut - $sent));
    echo $bytes;
    flush();
    $sent += strlen($bytes);
    if ($rate) {
        $ahead = $sent / $rate - (microtime(true) - $start);
        usleep((int) max(0, $ahead * 1e6));
    }
}

if (isset($_GET['kill'])) {
    usleep(50000);
    posix_kill(getmypid(), 9);
}
