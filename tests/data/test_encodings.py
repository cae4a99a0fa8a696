"""Legacy encodings: the same bytes mean other letters in another one, and nothing in the file says which it is."""

from __future__ import annotations

import pytest

from connection.data.pair_file import PairFile
from tests.data.test_pair_file import read

SENTENCES = {
    "fr": ("La vanne n°0 doit être fermée à l'arrêt, l'été.", "Vérifier la vanne fermée.", "Ça coûte cher, où est-ce ?"),
    "de": ("Die Tür schließt über Nacht.", "Größe prüfen, Öl wechseln.", "Müßiggang führt zu Ärger."),
    "es": ("¿Dónde está la válvula?", "El señor cerró la válvula a las ocho.", "Mañana revisará la presión."),
    "pt": ("A válvula não está fechada.", "Verificar a pressão às oito.", "Ação concluída."),
    "it": ("La valvola è già chiusa perché è notte.", "Però la città è più lontana.", "Verità e libertà."),
    "sv": ("Dörren ska stängas på natten.", "Kontrollera att dörren är stängd.", "Åtgärda läckan före måndag."),
    "ja": ("扉は二秒以内に閉まる。", "扉が閉まることを確かめる。", "ランプが点く。猫が寝ている。"),
    "ko": ("문은 2초 안에 잠겨야 한다.", "문이 2초 뒤에 잠기는지 확인한다.", "고양이가 자고 있다."),
    "zh": ("门应在两秒内锁上。", "请检查第零号阀门是否关闭。", "猫在睡觉。"),
    "tw": ("門應在兩秒內鎖上。", "請檢查閥門是否關閉。", "貓在睡覺。"),
    "ru": ("Дверь должна закрыться через две секунды.", "Проверить, что дверь закрыта.", "Кошка спит на полу."),
    "el": ("Η πόρτα πρέπει να κλείσει.", "Ελέγξτε ότι η πόρτα έκλεισε.", "Η γάτα κοιμάται."),  # noqa: RUF001
    "tr": ("Kapı iki saniye içinde kapanmalı.", "Kapının kapandığını kontrol et.", "Şişe güneşte."),  # noqa: RUF001
    "pl": ("Drzwi muszą zamknąć się szybko.", "Sprawdź, czy drzwi są zamknięte.", "Źle działa łącznik."),
    "he": ("הדלת צריכה להיסגר תוך שתי שניות.", "בדוק שהדלת סגורה.", "החתול ישן."),
    "ar": ("يجب أن يغلق الباب خلال ثانيتين.", "تحقق من أن الباب مغلق.", "القطة نائمة."),
}  # fmt: skip
CASES = [
    ("fr", "cp1252"), ("fr", "mac-roman"), ("fr", "cp850"), ("de", "cp1252"), ("de", "mac-roman"), ("de", "cp437"),
    ("es", "cp1252"), ("es", "mac-roman"), ("pt", "cp1252"), ("pt", "mac-roman"), ("it", "cp1252"), ("it", "mac-roman"),
    ("sv", "cp1252"), ("sv", "mac-roman"), ("ja", "cp932"), ("ja", "euc_jp"), ("ko", "cp949"), ("zh", "gb2312"), ("tw", "big5"),
    ("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "iso8859-5"), ("ru", "cp866"), ("el", "cp1253"), ("el", "iso8859-7"),
    ("tr", "cp1254"), ("pl", "cp1250"), ("pl", "iso8859-2"), ("he", "cp1255"), ("ar", "cp1256"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "encoding"), CASES)
@pytest.mark.parametrize("count", [1, 3, 30])
def test_texts_come_back(tmp_path, language, encoding, count):
    known = SENTENCES[language]
    rows = [(known[number % 3], f"{known[(number + 1) % 3]} {number}", float(number % 6)) for number in range(count)]
    path = tmp_path / "p.csv"
    path.write_bytes("\n".join(["sentence1;sentence2;score", *(";".join(map(str, row)) for row in rows)]).encode(encoding))
    assert read(path)[:2] == (rows, {})
    assert "save as UTF-8 to be sure" in str(PairFile.open(path))


def test_the_euro_sign_tells_two_encodings_apart(tmp_path):
    rows = [("Réparer la vanne coûte 5 €.", "Le cœur de l'été.", 1.0), ("Vérifier.", "Où ?", 2.0)]
    for encoding in ("iso8859-15", "cp1252"):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes("\n".join(["sentence1;sentence2;score", *(";".join(map(str, row)) for row in rows)]).encode(encoding))
        assert read(path)[:2] == (rows, {})
