<?php
// A page as there are many: a form takes a file, and a script goes through it line
// by line, which takes longer than anyone likes to wait. It knows nothing of queues
// and nothing of Osmosis. IMPORT_PAUSE is how many seconds it takes over a line (0.5).

declare(strict_types=1);

header('Content-Type: text/html; charset=utf-8');

function text(string $s): string
{
    return htmlspecialchars($s, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

// import sums a CSV file up: a name and an amount on each line.
function import(string $file): array
{
    $pause = getenv('IMPORT_PAUSE');
    $pause = (int) (1e6 * (float) ($pause === false ? '0.5' : $pause));
    $sums = [];
    $lines = fopen($file, 'r');
    while (($fields = fgetcsv($lines, null, ',', '"', '')) !== false) {
        usleep($pause);
        if (count($fields) === 2) {
            $sums[$fields[0]] = ($sums[$fields[0]] ?? 0) + (int) $fields[1];
        }
    }
    fclose($lines);
    ksort($sums);
    return $sums;
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/import' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    $upload = $_FILES['file'] ?? null;
    if ($upload === null || $upload['error'] !== UPLOAD_ERR_OK) {
        http_response_code(400);
        exit('<!doctype html><title>Import</title><p>There is no file. <a href="/">Back</a></p>');
    }
    $sums = import($upload['tmp_name']);
}
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Import</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/import.css">
<h1>Import</h1>
<?php if (isset($sums)): ?>
<p><?= text($upload['name']) ?>, sent to <?= text($_SERVER['HTTP_HOST']) ?> from <?= text($_SERVER['REMOTE_ADDR']) ?>, is imported.</p>
<table>
<?php foreach ($sums as $name => $sum): ?>
<tr><td><?= text((string) $name) ?></td><td><?= $sum ?></td></tr>
<?php endforeach ?>
</table>
<p><a href="/">Another one</a></p>
<?php else: ?>
<form action="/import" method="post" enctype="multipart/form-data">
  <label for="file">A CSV file with names and amounts</label><br>
  <input id="file" name="file" type="file" accept=".csv" required>
  <button>Import</button>
</form>
<?php endif ?>
</html>
